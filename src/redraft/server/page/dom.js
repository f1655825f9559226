// Elements. Text from a model or a server only ever becomes a text node.

export const find = (id) => document.getElementById(id);

// Whether there is a keyboard. Where a finger types, a focus would bring one up over what is read.
export const hasKeyboard = () => !matchMedia("(pointer: coarse)").matches;

// An element with properties and children.
export const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
