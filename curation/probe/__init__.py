"""The ridge probe: what the images themselves say of each concept, learned from the corpus' own captions.

For every concept t a linear estimate of the chance that a caption of image x names it,
r(x, t) = max(0, w_t . x + b_t), fitted to all captions at once by one pass over the corpus
(:mod:`curation.probe.fit`), stored as a folder of mapped arrays (:mod:`curation.probe.folder`).
"""

from curation.probe.fit import DEFAULT_RHO, RHOS, Probe, RhoChoice, choose_rho, fit_chosen, fit_probe
from curation.probe.folder import FORMAT, open_probe, write_probe
from curation.probe.left_out import LeftOut, left_out_of, left_out_share

__all__ = [
    "DEFAULT_RHO",
    "FORMAT",
    "RHOS",
    "LeftOut",
    "Probe",
    "RhoChoice",
    "choose_rho",
    "fit_chosen",
    "fit_probe",
    "left_out_of",
    "left_out_share",
    "open_probe",
    "write_probe",
]
