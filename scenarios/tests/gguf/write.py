"""Writes the GGUF headers that tests/gguf.rs reads, with the gguf package of llama.cpp (pip install gguf==0.19.0), and
prints the exact size of each file's tensors by that package's own table. No tensor data is written: `python3 write.py`."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFWriter
from gguf.quants import quant_shape_to_byte_shape

HERE = Path(__file__).parent


class Header:
    def __init__(self, file, architecture, parts=1, part=0):
        self.path, self.bytes, self.elements = HERE / file, 0, 0
        self.writer = GGUFWriter(self.path, architecture)
        if parts > 1:
            self.writer.add_key_value("split.no", part, 2)
            self.writer.add_key_value("split.count", parts, 2)

    def tensor(self, name, kind, *sides):
        """`sides` slowest first, as numpy has them; a file has them in reverse."""
        stored = quant_shape_to_byte_shape(sides, kind)
        size = int(np.prod(stored))
        plain = {T.F32: np.float32, T.F16: np.float16}
        shape = sides if kind in plain else stored
        self.writer.add_tensor_info(name, shape, np.dtype(plain.get(kind, np.uint8)), size, kind)
        self.bytes += size
        self.elements += int(np.prod(sides))

    def close(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_ti_data_to_file()
        self.writer.close()
        print(self.path.name, "bytes", self.bytes, "elements", self.elements)


def attention(header, layer, hidden, query, key, kinds):
    q, k, v, o = kinds
    at = f"blk.{layer}."
    header.tensor(at + "attn_norm.weight", T.F32, hidden)
    header.tensor(at + "ffn_norm.weight", T.F32, hidden)
    header.tensor(at + "attn_q.weight", q, query, hidden)
    header.tensor(at + "attn_k.weight", k, key, hidden)
    header.tensor(at + "attn_v.weight", v, key, hidden)
    header.tensor(at + "attn_output.weight", o, hidden, query)


def qwen3moe():
    """Qwen3-30B-A3B's shapes with four layers, in the types that Q4_K_M gives."""
    header = Header("qwen3moe-q4_k_m.gguf", "qwen3moe")
    w = header.writer
    w.add_block_count(4), w.add_embedding_length(2048), w.add_head_count(32), w.add_head_count_kv(4)
    w.add_key_length(128), w.add_value_length(128), w.add_expert_count(128), w.add_expert_used_count(8)
    w.add_token_list(["a", "b", "a longer token"]), w.add_chat_template("{{ messages }}" * 20)
    header.tensor("token_embd.weight", T.Q4_K, 151936, 2048)
    header.tensor("output_norm.weight", T.F32, 2048)
    header.tensor("output.weight", T.Q6_K, 151936, 2048)
    for layer in range(4):
        down = T.Q6_K if layer % 2 == 0 else T.Q4_K
        attention(header, layer, 2048, 4096, 512, (T.Q4_K, T.Q4_K, down, T.Q4_K))
        at = f"blk.{layer}."
        header.tensor(at + "attn_q_norm.weight", T.F32, 128)
        header.tensor(at + "attn_k_norm.weight", T.F32, 128)
        header.tensor(at + "ffn_gate_inp.weight", T.F32, 128, 2048)
        header.tensor(at + "ffn_gate_exps.weight", T.Q4_K, 128, 768, 2048)
        header.tensor(at + "ffn_up_exps.weight", T.Q4_K, 128, 768, 2048)
        header.tensor(at + "ffn_down_exps.weight", down, 128, 2048, 768)
    header.close()


def gpt_oss():
    """gpt-oss-20b's shapes with two layers, as published: experts in MXFP4."""
    header = Header("gpt-oss-mxfp4.gguf", "gpt-oss")
    w = header.writer
    w.add_block_count(2), w.add_embedding_length(2880), w.add_head_count(64), w.add_head_count_kv(8)
    w.add_key_length(64), w.add_value_length(64), w.add_expert_count(32), w.add_expert_used_count(4)
    w.add_sliding_window(128)
    header.tensor("token_embd.weight", T.Q8_0, 201088, 2880)
    header.tensor("output_norm.weight", T.F32, 2880)
    header.tensor("output.weight", T.Q8_0, 201088, 2880)
    for layer in range(2):
        attention(header, layer, 2880, 4096, 512, (T.Q8_0,) * 4)
        at = f"blk.{layer}."
        header.tensor(at + "attn_sinks.weight", T.F32, 64)
        header.tensor(at + "ffn_gate_inp.weight", T.F32, 32, 2880)
        for name in ("gate", "up", "down"):
            header.tensor(at + f"ffn_{name}_exps.weight", T.MXFP4, 32, 2880, 2880)
            header.tensor(at + f"ffn_{name}_exps.bias", T.F32, 32, 2880)
    header.close()


def llama():
    """Llama-3.1-8B's shapes with two layers, in two parts, the second with the second layer."""
    for part in range(2):
        header = Header(f"llama-{part + 1:05}-of-00002.gguf", "llama", 2, part)
        if part == 0:
            w = header.writer
            w.add_block_count(2), w.add_embedding_length(4096), w.add_head_count(32), w.add_head_count_kv(8)
            header.tensor("token_embd.weight", T.Q4_K, 128256, 4096)
            header.tensor("output_norm.weight", T.F32, 4096)
            header.tensor("output.weight", T.Q6_K, 128256, 4096)
            header.tensor("rope_freqs.weight", T.F32, 64)
        attention(header, part, 4096, 4096, 1024, (T.Q4_K, T.Q4_K, T.Q6_K, T.Q4_K))
        header.tensor(f"blk.{part}.ffn_gate.weight", T.IQ4_XS, 14336, 4096)
        header.tensor(f"blk.{part}.ffn_up.weight", T.Q4_K, 14336, 4096)
        header.tensor(f"blk.{part}.ffn_down.weight", T.Q6_K, 4096, 14336)
        header.close()


qwen3moe()
gpt_oss()
llama()
