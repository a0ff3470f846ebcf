// Selected text is copied with its formulas as the LaTeX they were written in: MathJax draws them by style sheets, which a selection does not see.
document.addEventListener('copy', event => {
  const selection = document.getSelection(), items = window.MathJax?.startup?.document?.math;
  if (!selection.rangeCount || selection.isCollapsed || !items) return;
  for (const item of items) if (item.typesetRoot) item.typesetRoot.dataset.tex = item.display ? `$$${item.math}$$` : `$${item.math}$`;
  const holder = document.createElement('div');
  holder.append(selection.getRangeAt(0).cloneContents());
  const drawn = holder.querySelectorAll('[data-tex]');
  if (!drawn.length) return;
  for (const node of drawn) node.replaceWith(node.dataset.tex);
  event.clipboardData.setData('text/plain', holder.textContent);
  event.preventDefault();
});
