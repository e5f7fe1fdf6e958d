"""Readers and writers of every file the survey keeps. A codec writes to the path it is given; sealing is the caller's."""
