"""How the curation is distributed: session, tables, waves, one module a job."""
