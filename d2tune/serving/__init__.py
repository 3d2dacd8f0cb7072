"""An HTTP API of trained models: predictions on images that are sent to it."""
