"""Everything around the networks: configuration, data, running, scoring."""
