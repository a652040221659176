//! The style sheet and the small script of the page.

/// Light by default, dark where the reader's system is.
pub(super) const CSS: &str = r#"
:root{--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--mute:#647083;--line:#dfe4ea;--grid:#eceff3;--fit:#1f5fbf;--dot:#33415599;
--off:#c2703d;--accent:#1f5fbf;--edge:#aab4c2;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--bg:#11161d;--card:#19202a;--ink:#e4e9f0;--mute:#93a0b2;--line:#2b3542;--grid:#232c38;--fit:#6aa7ff;--dot:#c5d0dd99;
--off:#e0935f;--accent:#6aa7ff;--edge:#55637a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1280px;margin:0 auto;padding:28px 24px 40px}
h1{font-size:26px;line-height:1.2;margin:0;letter-spacing:-.01em}
h2{font-size:17px;margin:34px 0 4px;letter-spacing:-.005em}
p{margin:0}
.sub{color:var(--mute);max-width:130ch;margin-top:4px}
.lead{color:var(--mute);margin:4px 0 0;max-width:130ch}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0 0;padding:0;list-style:none}
.figures b{display:block;white-space:nowrap;font-size:22px;line-height:1.2;font-weight:650;letter-spacing:-.01em}
.figures span{color:var(--mute);font-size:12.5px}
.story{margin:12px 0 0;padding:6px 16px;list-style:none}
.story li{display:grid;grid-template-columns:72px 1fr;gap:14px;padding:7px 0;border-top:1px solid var(--grid);align-items:baseline}
.story li:first-child{border-top:0}
.story b{font-size:18px;text-align:right;font-variant-numeric:tabular-nums}
.smiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(285px,1fr));gap:12px;margin-top:12px}
.smile{padding:10px 12px 6px}
.smile h3{font-size:14px;margin:0;display:flex;justify-content:space-between;gap:8px;font-weight:650}
.smile h3 span,.note{font-weight:400;color:var(--mute);font-size:12px}
.smile p{color:var(--mute);font-size:12px;font-variant-numeric:tabular-nums}
.smile svg{display:block;width:100%;height:auto;margin-top:2px}
.smile .why{padding:18px 0 20px;white-space:normal}
.two{display:grid;grid-template-columns:1.12fr 1fr;gap:12px;margin-top:12px}
.three{display:grid;grid-template-columns:1fr 1fr 1fr;gap:12px;margin-top:12px}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:12px;margin-top:12px}
@media(max-width:980px){.two,.three,.pair{grid-template-columns:1fr}}
.card h3{font-size:14px;margin:0 0 4px;font-weight:650}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--mute)}
svg .strong{fill:var(--ink);font-weight:600}
.chart svg{display:block;width:100%;height:auto}
.graph svg{display:block;max-width:100%;height:auto;margin:auto}
.grid{stroke:var(--grid);stroke-width:1;fill:none}.axis{stroke:var(--line);stroke-width:1;fill:none}
.fit{stroke:var(--fit);stroke-width:2;fill:none;stroke-linejoin:round}
.dots{stroke:var(--dot);stroke-width:4;stroke-linecap:round;fill:none}
.off{stroke:var(--off);stroke-width:3;stroke-linecap:round;fill:none;opacity:.38}
.zero{stroke:var(--edge);stroke-width:1;stroke-dasharray:2 3}
.quad{stroke:#0b101766;stroke-width:.4;stroke-linejoin:round}
.read{fill:var(--ink)!important;font-variant-numeric:tabular-nums}
.dim{opacity:.18}
.key{display:flex;flex-wrap:wrap;gap:4px 16px;color:var(--mute);font-size:12.5px;margin-top:8px}
.key i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px;vertical-align:-1px}
.key i.round{border-radius:50%}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:4px 8px;border-top:1px solid var(--grid)}
th:first-child,td:first-child{text-align:left;padding-left:0}
thead th{color:var(--mute);font-weight:500;font-size:12.5px;border-top:0}
tbody th{font-weight:500}
td{white-space:nowrap}
td.zero0{color:var(--mute)}
.heat td{color:#10161e;border:2px solid var(--card);padding:7px 2px;text-align:center;font-size:12.5px;border-radius:6px}
.heat th{font-weight:500;font-size:12.5px;border:0;padding:3px 4px;text-align:center;color:var(--mute);white-space:nowrap}
.heat th:first-child{text-align:left}
.scroll{overflow-x:auto}
.tabs{display:flex;flex-wrap:wrap;gap:6px;margin-top:26px}
.tabs button{font:inherit;color:var(--ink);background:var(--card);border:1px solid var(--line);border-radius:8px;padding:5px 11px;cursor:pointer;font-variant-numeric:tabular-nums}
.tabs button[aria-selected=true]{background:var(--accent);border-color:var(--accent);color:var(--card);font-weight:600}
.tabs button:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
footer{color:var(--mute);font-size:12.5px;margin-top:30px}
"#;

/// Tabs for the days, a read-out of the nearest point of a smile, and a graph that dims what a node does not touch.
/// Without the script all days are shown one below the other.
pub(super) const SCRIPT: &str = r#"
(function(){
var tabs=[].slice.call(document.querySelectorAll('[role=tab]'));
function show(i,focus){tabs.forEach(function(t,j){var on=i===j;t.setAttribute('aria-selected',on);t.tabIndex=on?0:-1;
document.getElementById(t.getAttribute('aria-controls')).hidden=!on;});if(focus)tabs[i].focus();}
tabs.forEach(function(t,i){t.onclick=function(){show(i)};t.onkeydown=function(e){
var d=e.key==='ArrowRight'?1:e.key==='ArrowLeft'?-1:0;if(d)show((i+d+tabs.length)%tabs.length,true);};});
if(tabs.length){var bar=document.querySelector('.tabs');bar.hidden=false;show(tabs.length-1);}
document.querySelectorAll('svg[data-p]').forEach(function(s){var read=s.querySelector('.read'),ps=null;
function load(){return s.dataset.p.split(';').filter(Boolean).map(function(p){return p.split(',')});}
s.addEventListener('mousemove',function(e){ps=ps||load();var r=s.getBoundingClientRect(),x=(e.clientX-r.left)/r.width*290,b=null,d=1e9;
ps.forEach(function(p){var q=Math.abs(p[0]-x);if(q<d){d=q;b=p;}});
if(b)read.textContent='strike '+b[1]+'  market '+b[2]+'  fit '+b[3];});
s.addEventListener('mouseleave',function(){read.textContent='';});});
var g=document.querySelector('svg.ub');
if(g){var parts=[].slice.call(g.querySelectorAll('[data-n],[data-e]'));
function light(id){parts.forEach(function(p){p.classList.remove('dim');});if(id===null)return;var keep={};keep[id]=1;
g.querySelectorAll('[data-e]').forEach(function(p){var e=p.dataset.e.split(' ');if(e[0]===id||e[1]===id){keep[e[0]]=keep[e[1]]=1;p.dataset.on=1;}else p.dataset.on='';});
parts.forEach(function(p){if(p.dataset.n?!keep[p.dataset.n]:!p.dataset.on)p.classList.add('dim');});}
g.querySelectorAll('[data-n]').forEach(function(n){n.addEventListener('mouseenter',function(){light(n.dataset.n)});n.addEventListener('mouseleave',function(){light(null)});});}
})();
"#;
