"""Makes figures of README and docs from reports: docs/quickstart.svg from that of `trimtab quickstart`.

    cargo run --release -- quickstart --out out/quickstart
    python3 dev/readme_figure.py out/quickstart/report.html docs/quickstart.svg
    python3 dev/readme_figure.py out/cd/e1/report.html docs/e1_length.svg reward-by-tokens reward-by-kl

Takes two of the report's figures (by default reward and win rate against KL) as they are and puts them side by side with
the report's own style, so that the README shows nothing that the program did not draw. Knows no numbers.
"""

import re
import sys

WIDTH, HEIGHT = 420, 300


def main(report_path, figure_path, *names):
    report = open(report_path, encoding="utf-8").read()
    figures = re.findall(r"<svg viewBox=\"0 0 420 300\".*?</svg>", report, flags=re.S)
    if names:
        figures = [figure for name in names for figure in figures if f'"{name}-title"' in figure]
    figures = figures[:2]
    if len(figures) != 2:
        sys.exit(f"{report_path} has {len(figures)} of the figures, 2 are needed")
    style = re.search(r"<style>(.*?)</style>", report, flags=re.S).group(1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT}" width="{2 * WIDTH}" height="{HEIGHT}" '
        'role="img" aria-label="Figures of a report">',
        f"<style>{style}\nsvg {{ font-family: system-ui, sans-serif; }}</style>",
        '<rect width="100%" height="100%" fill="var(--page)"/>',
    ]
    for idx, figure in enumerate(figures):
        placed = figure.replace("<svg ", f'<svg x="{idx * WIDTH}" y="0" width="{WIDTH}" height="{HEIGHT}" ', 1)
        parts.append(placed)
    parts.append("</svg>\n")
    with open(figure_path, "w", encoding="utf-8") as out:
        out.write("\n".join(parts))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
