"""How any job runs: session, entry, a table's units, waves and commits, versions, the index on a host."""
