"""What makes a reply right."""
