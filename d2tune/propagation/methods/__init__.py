"""The methods that carry masks through a video, each a `PropagationMethod`."""
