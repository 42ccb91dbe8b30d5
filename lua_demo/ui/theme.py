"""Neutral greys, so that nothing tints the pictures, and one accent; system fonts, so that nothing is fetched."""

from __future__ import annotations

import gradio as gr

ACCENT = gr.themes.Color(
    name="teal",
    c50="#eef8f6",
    c100="#d3eeea",
    c200="#a8ddd5",
    c300="#74c5ba",
    c400="#3fa99d",
    c500="#1f8d82",
    c600="#0e7168",
    c700="#0c5c55",
    c800="#0d4a45",
    c900="#0e3e3a",
    c950="#05241f",
)
SANS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue=ACCENT,
        secondary_hue=ACCENT,
        neutral_hue=gr.themes.colors.neutral,
        radius_size=gr.themes.sizes.radius_sm,
        font=SANS,
        font_mono=MONO,
    ).set(
        body_background_fill="white",
        body_background_fill_dark="#191919",
        background_fill_primary_dark="#222222",
        background_fill_secondary_dark="#1c1c1c",
        block_background_fill_dark="#222222",
        body_text_color_subdued="#5c5c5c",
        body_text_color_subdued_dark="#a6a6a6",
        block_label_text_weight="500",
        block_title_text_weight="500",
        block_shadow="none",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_300",
        button_primary_background_fill_hover_dark="*primary_200",
        button_primary_text_color="white",
        button_primary_text_color_dark="#0b1f1c",
        color_accent="*primary_600",
        link_text_color_dark="*primary_300",
        link_text_color_hover_dark="*primary_200",
        slider_color="*primary_600",
        slider_color_dark="*primary_300",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        checkbox_label_background_fill_hover="*neutral_100",
        checkbox_label_background_fill_hover_dark="*neutral_700",
        checkbox_label_background_fill_selected="transparent",
        checkbox_label_background_fill_selected_dark="transparent",
        checkbox_label_padding="4px 8px 4px 2px",
        checkbox_background_color_selected="*primary_600",
        checkbox_background_color_selected_dark="*primary_600",
        checkbox_border_color_selected="*primary_600",
        checkbox_border_color_selected_dark="*primary_300",
    )
