"""The main job: from a teacher and a task to the smallest model that passes, with its report."""
