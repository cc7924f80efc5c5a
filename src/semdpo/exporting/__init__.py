"""Writes a rewriter for other programs: transformers, llama.cpp, Ollama and ComfyUI."""
