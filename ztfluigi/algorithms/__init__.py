"""The science. Arrays and tables in, arrays and tables out; no files, database, clock, environment or unseeded randomness."""
