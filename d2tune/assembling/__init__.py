"""The final model of finished runs: candidates, chosen on some validation images and proven on the others."""
