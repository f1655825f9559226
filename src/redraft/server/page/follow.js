// Keeps the end of what grows in view, for a reader who is at the end; one who has scrolled up is left in peace.

const NEAR_PX = 60;

// Wires an element that scrolls, or whose page does where the window is too low for that.
export const follow = (element) => {
  let atEnd = false;
  const scroller = () => (element.scrollHeight > element.clientHeight + 1 ? element : document.scrollingElement);
  const look = () => {
    const { scrollHeight, scrollTop, clientHeight } = scroller();
    atEnd = scrollHeight - scrollTop - clientHeight < NEAR_PX;
  };
  const toEnd = () => {
    if (atEnd) scroller().scrollTop = scroller().scrollHeight;
  };
  element.addEventListener("scroll", look, { passive: true });
  document.addEventListener("scroll", look, { passive: true });
  const sizes = new ResizeObserver(toEnd);
  sizes.observe(element);
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) for (const node of addedNodes) if (node instanceof Element) sizes.observe(node);
  }).observe(element, { childList: true });
  return {
    // Goes to the end, and stays there.
    toEnd: () => {
      atEnd = true;
      toEnd();
    },
    // Goes to where something new begins.
    toStart: () => {
      atEnd = false;
      scroller().scrollTop = 0;
    },
  };
};
