"""The demo: a plant-floor assistant as the teacher, its work orders as the task.

Everything is generated from code. Nothing in the pipeline knows of this package.
"""
