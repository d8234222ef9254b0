"""Examination of a prepared data set for leaks and defects."""
