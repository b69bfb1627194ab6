"""The page's style sheet: one column, system fonts, light and dark, phone and paper."""

from typing import Final

CSS: Final = """
:root{
 --bg:#fcfcfb;--panel:#f3f3f0;--ink:#1b1c1e;--soft:#5a5d63;--rule:#dcdcd7;--seen:#1f5fa8;--held:#a8480f;--best:#5b5b66;
 --up:#1c6b3a;--down:#a5262b;--notice:#fdf3dc;--notice-rule:#c08a1e;--watch:#855b00;--rise-bg:#e6f2ea;--fall-bg:#fae9e8;
 --noise:#e4e4df;color-scheme:light dark;}
@media (prefers-color-scheme:dark){
 :root{
  --bg:#15171a;--panel:#1e2125;--ink:#e7e8ea;--soft:#a3a8b0;--rule:#33373d;--seen:#79b3f2;--held:#f0a267;--best:#b6b9c4;
  --up:#7fd19b;--down:#f29a9c;--notice:#2c2615;--notice-rule:#b98b2f;--watch:#e3b34d;--rise-bg:#1b2d22;--fall-bg:#3a2022;
  --noise:#2b2f35;}
}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{
 margin:0;background:var(--bg);color:var(--ink);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;}
main,footer{max-width:1200px;margin:0 auto;padding:32px 24px 24px}
h1,h2,h3,h4{line-height:1.2;font-weight:650;letter-spacing:-.012em;text-wrap:balance}
h1{font-size:clamp(1.4rem,1.1rem + 1.4vw,1.9rem);margin:.1em 0 .6em}
h2{font-size:1.32rem;margin:60px 0 12px;padding-top:18px;border-top:1px solid var(--rule)}
h3{font-size:1.02rem;margin:26px 0 10px}
h4{font-size:.92rem;margin:22px 0 10px}
small{font-size:.86em}
h2 small,h3 small{font-weight:400;color:var(--soft);letter-spacing:0}
p{margin:0 0 .8em;max-width:74ch}
.kicker{color:var(--soft);font-size:.9rem;margin:0}
.soft,figcaption{color:var(--soft);font-size:.9rem;font-weight:400}
.away{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
code{
 font:.86em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere;
 background:var(--panel);padding:2px 5px;border-radius:4px;}
:focus-visible{outline:2px solid var(--seen);outline-offset:2px}
.choose{border:0;padding:0;margin:0 0 14px;display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.92rem}
.choose legend{float:left;margin-right:14px;color:var(--soft);padding:4px 0}
.choose label{display:flex;gap:6px;align-items:center;padding:4px 0;min-height:28px;cursor:pointer}
.choose input{accent-color:var(--seen);margin:0}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,290px),1fr));gap:20px 32px}
.answer h2 small{display:block;margin-top:3px;font-size:.86rem}
.answer h2{font-size:1.05rem;margin:0 0 8px;padding:8px 0 0;border-top:3px solid var(--ink);overflow-wrap:anywhere}
.answer dl{margin:0;display:grid;gap:10px}
.answer dt{font-size:.86rem;color:var(--soft)}
.answer dd{margin:0;font-size:.95rem;max-width:64ch;overflow-wrap:anywhere}
.answer:only-child{border:0}
.answer:only-child dl>div{display:grid;grid-template-columns:10.5rem 1fr;gap:4px 20px;align-items:baseline}
.answer:only-child dd{font-size:1.02rem}
.grade{display:inline-flex;gap:5px;align-items:center;font-size:.86rem;font-weight:600;white-space:nowrap;letter-spacing:0}
.grade svg{width:14px;height:14px;flex:none}
.grade .line{fill:none;stroke:currentColor;stroke-width:2}
.grade .dash{stroke-dasharray:3 2}
.grade .full{fill:currentColor}
.g-none{color:var(--up)}
.g-watch{color:var(--watch)}
.g-strong{color:var(--down)}
.g-unknown{color:var(--soft)}
.notice{
 background:var(--notice);border-left:3px solid var(--notice-rule);padding:10px 16px;margin:20px 0 0;
 border-radius:0 6px 6px 0;}
.notice p:last-child{margin:0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:20px}
.card{background:var(--panel);border-radius:8px;padding:16px 18px}
.card h3{margin:0 0 8px;display:flex;flex-wrap:wrap;gap:4px 12px;justify-content:space-between}
.card dl{margin:0;display:grid;gap:12px}
.card dt{font-size:.9rem;font-weight:550;display:flex;flex-wrap:wrap;gap:2px 10px;justify-content:space-between}
.card dd{margin:2px 0 0;font-size:.9rem}
figure{margin:0}
img{display:block;width:100%;height:auto;border-radius:4px;background:var(--panel)}
img.px{image-rendering:pixelated}
.gone{
 display:grid;place-items:center;aspect-ratio:1;border:1px dashed var(--soft);border-radius:4px;
 color:var(--soft);font-size:.75rem;}
ul.strip,ul.pairs{margin:0;padding:0;list-style:none;display:grid}
.stripbox{margin:26px 0 0}
.stripbox p{margin:8px 0 0}
ul.strip{grid-template-columns:repeat(8,1fr);gap:14px 10px}
ul.strip .shots{display:grid;gap:4px}
li{position:relative;min-width:0}
.open{color:inherit;text-decoration:none}
.open:hover b{text-decoration:underline}
.open::after{content:"";position:absolute;inset:0;cursor:zoom-in}
.open:focus-visible{outline:0}
.open:focus-visible::after{outline:2px solid var(--seen);outline-offset:3px}
figure:target .open::after{content:none}
.shot{display:block;min-width:0}
.shot small{display:block;font-size:.76rem;line-height:1.3;color:var(--soft);padding-top:2px}
.who{display:block;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.strip .shot small,.by{display:none}
.strip figcaption{margin-top:4px;line-height:1.3;font-size:.76rem}
.strip figcaption b,.pairs figcaption b{
 display:-webkit-box;-webkit-line-clamp:3;-webkit-box-orient:vertical;overflow:hidden;overflow-wrap:anywhere;
 font-weight:550;color:var(--ink);}
.strip figcaption b{-webkit-line-clamp:2}
ul.pairs{grid-template-columns:repeat(auto-fill,minmax(min(100%,200px),1fr));gap:20px 22px}
ul.pairs.n2,ul.pairs.n3,ul.pairs.n4{grid-template-columns:repeat(auto-fill,minmax(min(100%,430px),1fr));gap:24px 40px}
.pairs .shots{display:grid;grid-auto-flow:column;grid-auto-columns:minmax(0,1fr);gap:5px}
.pairs figcaption{margin-top:4px;line-height:1.35;font-size:.84rem}
.close{display:none}
figure:target{
 position:fixed;inset:0;z-index:9;background:var(--bg);overflow:auto;padding:56px 24px 24px;
 display:flex;flex-direction:column;align-items:center;gap:12px;}
figure:target .shots{
 display:grid;grid-auto-flow:row;grid-template-columns:repeat(auto-fit,minmax(min(100%,220px),1fr));
 width:min(100%,1200px);gap:14px;}
figure:target .shot small{display:block;font-size:.95rem}
figure:target figcaption,figure:target .by{display:block;font-size:1rem;max-width:74ch}
figure:target figcaption b{display:block;overflow:visible}
figure:target .close{
 display:block;position:fixed;top:12px;right:20px;padding:6px 14px;border:1px solid var(--soft);border-radius:6px;
 background:var(--bg);color:var(--ink);text-decoration:none;}
.n{font-variant-numeric:tabular-nums;white-space:nowrap}
.up{color:var(--up)}
.down{color:var(--down)}
.scroll{overflow-x:auto;margin:0 0 8px}
table{border-collapse:collapse;min-width:100%;font-size:.84rem}
th,td{
 text-align:right;padding:6px 8px;border-bottom:1px solid var(--rule);white-space:nowrap;
 font-variant-numeric:tabular-nums;}
thead th{
 white-space:normal;font-weight:550;color:var(--soft);font-size:.84rem;vertical-align:bottom;
 border-bottom:1.5px solid var(--soft);}
th:first-child,td:first-child{padding-left:0}
th[scope=row],th.l{text-align:left;font-weight:550}
.group th{padding:14px 0 4px;border-bottom:0;white-space:normal}
.group~tr th[scope=row]{padding-left:14px;font-weight:400}
.forest th[scope=row]{white-space:normal;min-width:8.5em;max-width:22em;overflow:hidden;text-overflow:ellipsis}
.group~tr th[scope=row]{white-space:nowrap;max-width:12em}
.stick{display:inline-block;position:sticky;left:0;max-width:min(60em,calc(100vw - 40px))}
.words th,.words td{text-align:left;white-space:normal}
td.plot{padding:0 8px;width:200px}
td.plot svg{width:200px;height:auto}
.foot td{border:0}
.matrix td,.matrix th{vertical-align:top;white-space:normal}
.matrix td{white-space:nowrap;border-left:2px solid var(--bg)}
.matrix td small{color:var(--soft)}
.matrix th small{font-weight:400}
.matrix .rise{background:var(--rise-bg)}
.matrix .rise b{color:var(--up)}
.matrix .fall{background:var(--fall-bg)}
.matrix .fall b{color:var(--down)}
.matrix .moved{background:var(--panel)}
.matrix .own{outline:2px solid var(--ink);outline-offset:-3px}
.plots{
 display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:24px 40px;
 margin:16px 0 8px;}
.plots figure{min-width:0;max-width:520px}
.plots figcaption{margin:0 0 4px}
figcaption b{font-weight:600;color:var(--ink)}
svg{display:block;width:100%;height:auto}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--ink)}
svg .tick,svg .label{fill:var(--soft);font-variant-numeric:tabular-nums}
svg .note{font-size:11.5px;paint-order:stroke;stroke:var(--bg);stroke-width:3px}
svg .strong{font-weight:600;fill:var(--down)}
svg .axis{stroke:var(--soft);stroke-width:1}
svg .grid{stroke:var(--rule);stroke-width:1}
svg .zero{stroke:var(--ink);stroke-width:1.25;stroke-dasharray:3 3}
svg .onset{stroke:var(--down);stroke-width:1.5;stroke-dasharray:5 3}
svg .ring{fill:none;stroke:var(--ink);stroke-width:1.5}
svg .noise{fill:var(--noise)}
svg .bar{fill:none;stroke-width:1.75}
svg .run{fill:none;stroke-width:2;stroke-linejoin:round}
svg .band{fill:var(--seen);opacity:.16}
svg .bar.seen,svg .bar.trained,svg .run.trained{stroke:var(--seen)}
svg .bar.heldout,svg .run.heldout{stroke:var(--held)}
svg .bar.best-of,svg .run.best-of{stroke:var(--best)}
svg .run.best-of{stroke-dasharray:6 4}
svg .mark.seen,svg .mark.trained{fill:var(--seen)}
svg .mark.heldout{fill:var(--held)}
svg .mark.best-of{fill:var(--bg);stroke:var(--best);stroke-width:1.75}
.key-seen{color:var(--seen)}
.key-heldout{color:var(--held)}
.key-best{color:var(--best)}
.key-noise{display:inline-block;width:1.3em;height:.8em;background:var(--noise);border:1px solid var(--rule)}
dl.facts{
 display:grid;grid-template-columns:minmax(8rem,max-content) minmax(0,1fr);gap:5px 20px;margin:0 0 14px;
 font-size:.92rem;}
dl.facts dt{color:var(--soft)}
dl.facts dd{margin:0;overflow-wrap:anywhere}
summary{cursor:pointer;color:var(--soft);font-size:.92rem;padding:6px 0}
.reward{border-top:1px solid var(--rule)}
.reward[open]{padding-bottom:22px}
.reward summary{padding:10px 0}
.reward summary h3{display:inline;margin:0 6px 0 2px;color:var(--ink)}
footer{padding-top:16px;padding-bottom:56px;color:var(--soft);font-size:.86rem}
@media (max-width:640px){
 main,footer{padding:20px 16px 16px}
 h2{margin-top:42px}
 .answer:only-child dl>div{grid-template-columns:1fr}
 ul.strip{grid-template-columns:repeat(4,1fr);gap:12px 8px}
 ul.pairs{grid-template-columns:1fr 1fr;gap:16px 14px}
 ul.pairs.n2,ul.pairs.n3,ul.pairs.n4{grid-template-columns:1fr}
 dl.facts{grid-template-columns:1fr;gap:0}
 dl.facts dd{margin-bottom:8px}
 td.plot,td.plot svg{width:170px}
 td.plot svg text{font-size:13px}
 th,td{padding:6px 5px}
 .forest th[scope=row]{min-width:7em}
}
@media print{
 :root{
  --bg:#fff;--panel:#fff;--ink:#000;--soft:#444;--rule:#bbb;--seen:#1f5fa8;--held:#a8480f;--best:#555;--up:#1c6b3a;
  --down:#a5262b;--watch:#855b00;--notice:#fff;--rise-bg:#eef6f0;--fall-bg:#fbeeee;--noise:#e6e6e6;color-scheme:light;}
 main,footer{max-width:none;padding:0}
 body{font-size:9.5pt}
 table{font-size:7.5pt}
 th,td{padding:3px 5px}
 td.plot,td.plot svg{width:150px}
 h2{margin-top:22pt}
 h2,h3,h4,summary{break-after:avoid}
 figure,tr,.notice,.card,.pairs li,.forest{break-inside:avoid}
 table:not(.forest) :is(th,td){white-space:normal}
 details::details-content{content-visibility:visible;block-size:auto;height:auto}
 .scroll{overflow:visible}
 .choose{display:none}
 figure:target{position:static;padding:0}
 figure:target .close{display:none}
 ul.pairs{grid-template-columns:repeat(4,1fr)}
 ul.pairs.n2,ul.pairs.n3,ul.pairs.n4{grid-template-columns:repeat(2,1fr)}
 .plots{grid-template-columns:1fr 1fr}
}
"""
