"""What is generated: each module renders some files from what the code already says."""
