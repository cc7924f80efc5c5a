// Shows what the node answered below its inputs. The text is not saved in the workflow.
import { app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

app.registerExtension({
  name: "semdpo.rewrite",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== "SemdpoRewrite") return;
    const { onNodeCreated, onExecuted } = nodeType.prototype;
    nodeType.prototype.onNodeCreated = function (...given) {
      onNodeCreated?.apply(this, given);
      const { widget } = ComfyWidgets.STRING(this, "answer", ["STRING", { multiline: true }], app);
      const box = widget.inputEl ?? widget.element;
      if (box) {
        box.readOnly = true;
        box.placeholder = "The rewrite appears here.";
      }
      widget.serialize = false; // neither in the workflow
      widget.options.serialize = false; // nor among the node's inputs
      this.semdpoAnswer = widget;
    };
    nodeType.prototype.onExecuted = function (message, ...rest) {
      onExecuted?.apply(this, [message, ...rest]);
      if (message?.text) this.semdpoAnswer.value = message.text.join("\n\n");
    };
  },
});
