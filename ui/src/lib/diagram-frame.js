/** Draws diagrams: the script of the frame that `diagrams.ts` makes. */
"use strict";

addEventListener("message", async ({ data, source }) => {
  if (source !== parent) return;
  const { id, code, theme } = data;
  try {
    mermaid.initialize({
      startOnLoad: false,
      securityLevel: "strict",
      // What a diagram cannot set for itself, besides what Mermaid forbids anyway.
      secure: ["secure", "securityLevel", "startOnLoad", "suppressErrorRendering", "maxTextSize", "maxEdges", "htmlLabels", "themeCSS"],
      suppressErrorRendering: true,
      maxTextSize: 20000,
      maxEdges: 300,
      // Text of HTML would make the drawing more than a picture.
      htmlLabels: false,
      flowchart: { htmlLabels: false },
      theme: "base",
      themeVariables: theme,
      // Lines end where their words begin.
      themeCSS: ".edgeLabel rect, .edgeLabel .background, .labelBkg { opacity: 1 }",
      fontFamily: theme.fontFamily,
    });
    const { svg, diagramType } = await mermaid.render(`diagram-${id}`, code);
    const holder = document.createElement("div");
    holder.innerHTML = svg;
    const drawing = holder.firstElementChild;
    const { width, height } = drawing.viewBox.baseVal;
    drawing.removeAttribute("style");
    drawing.setAttribute("width", width);
    drawing.setAttribute("height", height);
    // A picture of its own has to be well-formed XML.
    const text = new XMLSerializer().serializeToString(drawing);
    parent.postMessage({ id, svg: text, kind: diagramType, width, height }, "*");
  } catch (error) {
    parent.postMessage({ id, problem: String(error) }, "*");
  }
});

// Not before the page's own policy holds.
addEventListener("DOMContentLoaded", () => parent.postMessage({ ready: true }, "*"));
