"""Small station files of every layout, written as people and agencies write them."""

import numpy as np

STATIONS = (
    "station,latitude,longitude,elevation,name\nA,36.0,140.0,10,Alpha\nB,36.5,140.5,250,Beta\nC,37.0,141.0,,Gamma\n"
)


def random_table(seed=0, times=30, stations=3, variables=2, missing=0.3):
    random = np.random.default_rng(seed)
    values = np.round(random.normal(10, 5, (times, stations, variables)), 1)
    values[random.random(values.shape) < missing] = np.nan
    return values


def days(count, start="2020-02-20"):
    return [str(day) for day in np.datetime64(start) + np.arange(count)]


def tidy(values, times, header="station,time,tmax (degC),rain", names="ABCDEFGH", order="station"):
    rows = [
        (i, t, ",".join([names[i], times[t], *("" if np.isnan(v) else f"{v:.1f}" for v in values[t, i])]))
        for i in range(values.shape[1])
        for t in range(values.shape[0])
    ]
    rows.sort(key=(lambda row: row[:2]) if order == "station" else (lambda row: (row[1], row[0])))
    return "\n".join([header, *(row[2] for row in rows)]) + "\n"


def jma(values, dates, names=("酒田", "飛島", "東京"), newline="\r\n", quality=True, bom=False):
    """Write [time, station, (temperature, precipitation)] as the agency does."""
    date_header = {1: ["年月日"], 3: ["年", "月", "日"], 2: ["年", "月"]}[len(dates[0])]
    lines = [[""] * len(date_header), list(date_header), [""] * len(date_header), [""] * len(date_header)]
    widths = (3, 4) if quality else (1, 1)
    for name in names[: values.shape[1]]:
        for element, width in zip(("平均気温(℃)", "降水量の合計(mm)"), widths, strict=True):
            lines[0] += [name] * width
            lines[1] += [element] * width
            lines[2] += [""] * width
            lines[3] += ([""] + ["現象なし情報", "品質情報", "均質番号"][-(width - 1) :]) if quality else [""]
    body = []
    for t, date in enumerate(dates):
        row = list(date)
        for i in range(values.shape[1]):
            for k, width in enumerate(widths):
                value = values[t, i, k]
                text = "" if np.isnan(value) else f"{value:.1f}"
                row += ([text] + ["0", "1" if text == "" else "8", "1"][-(width - 1) :]) if quality else [text]
        body.append(row)
    if not quality:
        lines = lines[:2]
    text = newline.join(["ダウンロードした時刻：2024/01/02 03:04:05", "", *(",".join(row) for row in lines + body), ""])
    return text.encode("utf-8-sig" if bom else "cp932")
