"""The ways to prove oneself beside the password, as they are kept and checked."""
