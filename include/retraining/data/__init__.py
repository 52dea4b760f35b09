"""A file or a query becomes published rows: delivery, reading, validation, quarantine, tables."""
