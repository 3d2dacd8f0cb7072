"""Opens Labelme files in Labelme's own window and saves them there, in place; run by Labelme's own Python.

``python labelme_window.py IMAGES FILE...`` prints one JSON list with the errors shown and the shapes on the canvas
of each file, and puts an image of each window into the folder IMAGES.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from labelme.app import MainWindow
from PyQt5 import QtWidgets


def look(window: MainWindow, file: str, images: Path) -> dict[str, Any]:
    errors: list[str] = []
    MainWindow.show_error_message = lambda self, title, message: errors.append(f"{title}: {message}")
    window._load_file(file)
    QtWidgets.QApplication.processEvents()
    shapes = [
        {"label": shape.label, "shape_type": shape.shape_type, "points": len(shape.points)}
        for shape in window._canvas_widgets.canvas.shapes
    ]
    window.grab().save(str(images / f"{Path(file).stem}.png"))
    if not errors:
        window._save_label_file()
    return {"errors": errors, "shapes": shapes}


if __name__ == "__main__":
    application = QtWidgets.QApplication(["labelme"])
    opened = MainWindow(config_overrides={"auto_save": False, "with_image_data": False})
    opened.resize(1200, 800)
    opened.show()
    print(json.dumps([look(opened, file, Path(sys.argv[1])) for file in sys.argv[2:]]))
