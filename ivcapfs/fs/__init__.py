"""What it looks like: paths, attributes and errno answers, and at the top the kernel."""
