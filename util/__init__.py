"""Everything around the networks: configuration, data, running, scoring."""

__path__.append(f"{__path__[0]}/data")  # the first edition had util.image and its like here
