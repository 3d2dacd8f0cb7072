"""Project files written by looking at a folder of images."""

from d2tune.new_project.create import NewProject, new_project

__all__ = ["NewProject", "new_project"]
