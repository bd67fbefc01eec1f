"""What everything may use: values, number formats, and the operating system."""
