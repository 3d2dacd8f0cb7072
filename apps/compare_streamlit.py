"""Two models on one image, side by side: ``streamlit run apps/compare_streamlit.py -- [MODEL ...]``.

The page holds no logic: it asks `d2tune.model_comparison` what can be chosen, and shows what `d2tune.compare_models`
gives.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import streamlit as st

import d2tune
from d2tune.errors import D2TuneError
from d2tune.model_comparison import drawings
from d2tune.model_comparison.choices import ModelChoice, chosen_image, image_choices, model_choices
from d2tune.model_comparison.compare import Comparison
from d2tune.model_comparison.models import ComparedModel, open_model

UPLOAD_MB = 32


def main() -> None:
    st.set_page_config(page_title="Compare two models", layout="wide", initial_sidebar_state="collapsed")
    st.title("Compare two models")
    options = arguments()
    try:
        models = model_choices(options.models, runs=options.runs, weights_folder=options.weights)
        images = image_choices(options.images)
    except D2TuneError as error:
        st.error(plain(error.one_line()))
        return
    left, middle, right = st.columns(3)
    a = left.selectbox("Model A", models, format_func=label, key="a")
    b = middle.selectbox("Model B", models, index=min(1, len(models) - 1), format_func=label, key="b")
    sample = right.selectbox("Image", list(images), key="sample")
    upload = st.file_uploader("Or your own image, which is taken instead", key="upload", max_upload_size=UPLOAD_MB)
    if st.button("Compare", type="primary", key="compare"):
        st.session_state.pop("comparison", None)
        try:
            image = chosen_image(images[sample]) if upload is None else upload.getvalue()
            with st.spinner("Predicting"):
                opened = [loaded(one.source, options.weights) for one in (a, b)]
                st.session_state.comparison = d2tune.compare_models(*opened, image)
        except D2TuneError as error:
            st.error(plain(error.one_line()))
    if "comparison" in st.session_state:
        show(st.session_state.comparison)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare two models on one image.")
    parser.add_argument("models", nargs="*", help="runs, packages, exported models, NAME=FILE of published networks")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs to list (default: runs)")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="folder with files of published networks")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="images to choose from")
    return parser.parse_args()


def label(choice: ModelChoice) -> str:
    return choice.label


@st.cache_resource(max_entries=4, show_spinner=False)
def loaded(source: str, weights_folder: Path | None) -> ComparedModel:
    return open_model(source, weights_folder=weights_folder)


def plain(text: str) -> str:
    """A text whose letters Markdown takes as they are."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()<>#+-.!|$~:" else letter for letter in text)


def show(comparison: Comparison) -> None:
    maps = comparison.maps
    same, mean, size = st.columns(3)
    same.metric("Pixels with the same class", "none" if maps.share is None else f"{100 * maps.share:.1f} %")
    mean.metric("Mean IoU of A and B", "none" if maps.mean_iou is None else f"{100 * maps.mean_iou:.1f}")
    height_px, width_px = comparison.image_rgb.shape[:2]
    size.metric("Image", f"{width_px} x {height_px} px")
    opacity = st.slider("Opacity", 0.0, 1.0, 0.5, 0.05, key="opacity")
    views = drawings.views(comparison, opacity=opacity)
    for column, (title, shown) in zip(st.columns(3), views.items(), strict=True):
        column.image(shown, caption=plain(title), width="stretch", alt=title)
    st.subheader("Classes")
    st.html(drawings.legend_html(comparison))
    st.table(drawings.class_rows(comparison), hide_index=True)
    st.subheader("Models")
    st.table(drawings.side_rows(comparison), hide_index=True)
    st.download_button(
        "Download images and tables",
        lambda: drawings.to_zip(comparison, opacity=opacity),
        file_name="comparison.zip",
        mime="application/zip",
        key="download",
    )


main()
