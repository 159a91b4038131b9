"""What was learned: values, and folders that hold them."""
