"""What happens around a training step besides the step itself."""
