"""Labelme's own program, in whose window a person ticks, moves and draws; run by Labelme's own Python.

``python labelme_person.py WORDS...`` starts Labelme with the words. The first image is confirmed with the flag
``checked``, on the second one a corner is moved, on the third one all shapes are deleted and one is drawn; then the
window is closed. A word ``--crash`` before the others ends the process after the first image, as a crash does.
"""

from __future__ import annotations

import os
import sys
import traceback

from labelme import __main__ as program
from labelme.app import MainWindow
from PyQt5 import QtCore, QtWidgets
from PyQt5.QtCore import QPointF

CRASHES = sys.argv[1:2] == ["--crash"]


class Person(MainWindow):
    def showEvent(self, event: object) -> None:
        super().showEvent(event)
        QtCore.QTimer.singleShot(0, self.work)

    def work(self) -> None:
        try:
            self.correct()
        except BaseException:
            traceback.print_exc()
            os._exit(4)  # Labelme would show the error in a dialog, and wait
        self.close()
        QtWidgets.QApplication.quit()

    def correct(self) -> None:
        assert len(self.image_list) >= 3
        flags = self._docks.flag_list
        names = [flags.item(place).text() for place in range(flags.count())]
        flags.item(names.index("checked")).setCheckState(QtCore.Qt.Checked)
        if CRASHES:
            os._exit(3)
        canvas = self._canvas_widgets.canvas
        self._open_next_image()
        canvas.shapes[0].points[0] += QPointF(3, 2)
        self.mark_dirty()
        self._open_next_image()
        shape = canvas.shapes[0].copy()
        canvas.select_shapes(list(canvas.shapes))
        self.remove_labels(canvas.delete_selected())
        shape.points = [QPointF(*point) for point in ((10, 10), (90, 10), (90, 80), (10, 80))]
        assert shape.shape_type == "polygon" and shape.label == "balloon"
        shape.flags = {}
        self._load_shapes([shape], replace=False)
        self.mark_dirty()
        if len(self.image_list) > 3:
            self._open_next_image()


if __name__ == "__main__":
    if CRASHES:
        del sys.argv[1]
    program.MainWindow = Person
    program.main()
