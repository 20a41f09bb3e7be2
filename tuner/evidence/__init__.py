"""What is known of the error of predictions."""
