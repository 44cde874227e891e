"""The look of the report's page: light, readable on a telephone, and legible without colour."""

CSS = """
:root{color-scheme:light}
body{margin:0;background:#fff;color:#1c1c1c;font:16px/1.55 system-ui,-apple-system,Roboto,"DejaVu Sans",sans-serif}
main{max-width:62rem;margin:0 auto;padding:1rem 1rem 4rem}
h1{font-size:1.55rem;line-height:1.25;margin:.6rem 0}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;padding-top:.8rem;border-top:1px solid #d8d8d8}
h3{font-size:1rem;margin:1.6rem 0 .4rem}
p,li{max-width:46rem}
.verdict{font-size:1.12rem}
.small{font-size:.86rem;color:#444}
.stop,.caution{padding:.6rem .9rem;margin:.7rem 0}
.stop{border-left:6px solid #b3261e;background:#fdeceb;font-weight:600}
.caution{border-left:6px solid #e69f00;background:#fff7e3}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:.84rem;margin:.4rem 0 .9rem;font-variant-numeric:tabular-nums}
th,td{padding:.28rem .55rem;text-align:right;border-bottom:1px solid #e6e6e6;white-space:nowrap}
th{font-weight:600;vertical-align:bottom;white-space:normal;border-bottom:1px solid #888}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}
tbody tr:hover td{background:#f5f7fa}
tr.trivial td{color:#6a6a6a}
td.good{background:#dcebf5}td.some{background:#fdf1d6}td.bad{background:#f8e0d2;font-weight:600}
.words,td.good,td.some,td.bad{text-align:left}
figure{margin:1.2rem 0}
img{max-width:100%;height:auto;display:block}
figcaption{font-size:.86rem;color:#444;max-width:46rem;margin-top:.3rem}
summary{cursor:pointer;font-weight:600;margin:.6rem 0}
@media(max-width:640px){main{padding:.6rem .7rem 3rem}img.wide{max-width:none;width:760px}}
"""
