"""Classical methods on arrays, without networks: thresholds, maps, mixtures, and outlines from scribbles."""
