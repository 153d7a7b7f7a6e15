"""What a trained model says about new sequences."""
