"""Networks: GroupViT, its text encoder, contrastive losses, the open_clip encoder."""

from models import torchvision_ops as _torchvision_ops  # noqa: F401  (before any torchvision import)
