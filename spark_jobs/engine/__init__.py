"""How any job runs: session, entry, units, waves, versions, the index on a host."""
