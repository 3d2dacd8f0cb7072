"""The networks as graphs: written so that tracing keeps every size and number of instances open."""
