"""The only room that reads or writes product files and registry rows."""
