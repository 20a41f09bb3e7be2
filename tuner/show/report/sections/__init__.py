"""A report in words, tables and charts."""
