"""The page's style sheet: one column, system fonts, light and dark, phone and paper."""

CSS = """
:root{
 --bg:#fcfcfb;--panel:#f3f3f0;--ink:#1b1c1e;--soft:#5a5d63;--rule:#dcdcd7;--seen:#1f5fa8;--held:#a8480f;
 --up:#1c6b3a;--down:#a5262b;--notice:#fdf3dc;--notice-rule:#c08a1e;color-scheme:light dark;}
@media (prefers-color-scheme:dark){
 :root{
  --bg:#15171a;--panel:#1e2125;--ink:#e7e8ea;--soft:#a3a8b0;--rule:#33373d;--seen:#79b3f2;--held:#f0a267;
  --up:#7fd19b;--down:#f29a9c;--notice:#2c2615;--notice-rule:#b98b2f;}
}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{
 margin:0;background:var(--bg);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;}
main{max-width:1080px;margin:0 auto;padding:40px 24px 72px}
h1,h2,h3{line-height:1.2;font-weight:650;letter-spacing:-.012em;text-wrap:balance}
h1{font-size:clamp(1.55rem,1.2rem + 1.6vw,2.05rem);margin:.15em 0 .5em}
h2{font-size:1.32rem;margin:64px 0 14px;padding-top:18px;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:28px 0 10px}
h3 small,h2 small{font-weight:400;color:var(--soft);letter-spacing:0}
p{margin:0 0 .8em;max-width:72ch}
.kicker{color:var(--soft);font-size:.9rem;margin:0}
.soft,figcaption{color:var(--soft);font-size:.9rem}
.answer{display:grid;gap:14px;margin:22px 0 30px}
.answer div{display:grid;grid-template-columns:9.5rem 1fr;gap:4px 20px;align-items:baseline}
.answer dt{font-size:.9rem;color:var(--soft);margin:0}
.answer dd{margin:0;font-size:1.06rem;max-width:64ch}
.notice{
 background:var(--notice);border-left:3px solid var(--notice-rule);padding:12px 16px;margin:28px 0 0;
 border-radius:0 6px 6px 0;}
.notice p:last-child,.notice ul{margin-bottom:0}
.notice ul{margin-top:0;padding-left:1.2em}
figure{margin:0}
img{display:block;width:100%;height:auto;border-radius:4px;background:var(--panel)}
img.px{image-rendering:pixelated}
.gone{
 display:grid;place-items:center;aspect-ratio:1;border:1px dashed var(--rule);border-radius:4px;
 color:var(--soft);font-size:.75rem;}
.strip{
 display:grid;grid-template-columns:repeat(auto-fill,minmax(96px,1fr));gap:16px 12px;margin:0 0 10px;
 padding:0;list-style:none;}
.strip .shots{display:grid;gap:4px}
.pairs{
 display:grid;grid-template-columns:repeat(auto-fill,minmax(218px,1fr));gap:20px 22px;margin:0;padding:0;
 list-style:none;}
.pairs .shots{display:grid;grid-template-columns:1fr 1fr;gap:4px}
.pairs figcaption,.strip figcaption{margin-top:6px;line-height:1.35;font-size:.84rem;overflow-wrap:anywhere}
figcaption b{display:block;font-weight:550;color:var(--ink)}
.n{font-variant-numeric:tabular-nums;white-space:nowrap}
.soft{font-weight:400}
.up{color:var(--up)}
.down{color:var(--down)}
.scroll{overflow-x:auto;margin:0 0 8px}
table{border-collapse:collapse;width:100%;font-size:.87rem}
th,td{
 text-align:right;padding:8px;border-bottom:1px solid var(--rule);white-space:nowrap;
 font-variant-numeric:tabular-nums;}
thead th{
 font-weight:550;color:var(--soft);font-size:.84rem;vertical-align:bottom;
 border-bottom:1.5px solid var(--soft);}
th:first-child,td:first-child{padding-left:0}
th[scope=row],th.l,td.l{text-align:left;font-weight:550}
td.l{font-weight:400}
tbody th[colspan]{padding-top:18px}
.plots{
 display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:28px 44px;
 margin:26px 0 0;}
.plots figure{min-width:0;max-width:520px}
.plots figcaption{margin:0 0 8px}
.plots figcaption b{display:inline}
svg{display:block;width:100%;height:auto}
svg text{font:12.5px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--ink)}
svg .tick,svg .label,svg .value{fill:var(--soft);font-variant-numeric:tabular-nums}
svg .name{font-weight:550}
svg .axis{stroke:var(--soft);stroke-width:1}
svg .grid{stroke:var(--rule);stroke-width:1}
svg .zero{stroke:var(--ink);stroke-width:1.25;stroke-dasharray:3 3}
svg .bar{stroke-width:2}
svg .bar.seen{stroke:var(--seen)}
svg .bar.heldout{stroke:var(--held)}
svg .mark.seen{fill:var(--seen)}
svg .mark.heldout{fill:var(--held)}
svg .curve{fill:none;stroke:var(--seen);stroke-width:2;stroke-linejoin:round}
svg .band{fill:var(--seen);opacity:.16}
.key-seen{color:var(--seen)}
.key-heldout{color:var(--held)}
dl.facts{
 display:grid;grid-template-columns:minmax(8rem,max-content) minmax(0,1fr);gap:5px 20px;margin:0 0 18px;
 font-size:.92rem;}
dl.facts dt{color:var(--soft)}
dl.facts dd{margin:0;overflow-wrap:anywhere}
code{
 font:.86em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere;
 background:var(--panel);padding:2px 5px;border-radius:4px;}
details summary{cursor:pointer;color:var(--soft);font-size:.92rem;padding:4px 0}
:focus-visible{outline:2px solid var(--seen);outline-offset:2px}
footer{margin-top:56px;padding-top:16px;border-top:1px solid var(--rule);color:var(--soft);font-size:.86rem}
@media (max-width:600px){
 main{padding:24px 16px 48px}
 h2{margin-top:44px}
 .answer div{grid-template-columns:1fr}
 .answer dd{font-size:1rem}
 .strip{grid-template-columns:repeat(4,1fr);gap:14px 8px}
 .strip figcaption{font-size:.76rem}
 .pairs{grid-template-columns:1fr 1fr;gap:16px 14px}
 .pairs figcaption{font-size:.79rem}
 dl.facts{grid-template-columns:1fr;gap:0}
 dl.facts dd{margin-bottom:8px}
 th,td{padding:7px 8px}
}
@media (min-width:900px){
 .strip{grid-template-columns:repeat(8,1fr)}
}
@media print{
 :root{--bg:#fff;--panel:#fff;--ink:#000;--soft:#444;--rule:#bbb}
 main{max-width:none;padding:0}
 body{font-size:10.5pt}
 h2{margin-top:26pt;break-after:avoid}
 h3{break-after:avoid}
 figure,tr,.notice{break-inside:avoid}
 .scroll{overflow:visible}
 .pairs{grid-template-columns:repeat(4,1fr)}
 .strip{grid-template-columns:repeat(8,1fr)}
}
"""
