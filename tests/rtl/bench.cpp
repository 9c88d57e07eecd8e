// Drives bfp_dot with cases from stdin, one after the other, and writes what it answers to stdout.
//
// A case: a_exponent, w_exponent (uint32 each), then a and w in 32-bit words, lowest first. An answer: sum (the bits of
// the port, not sign-extended) and exponent, uint32 each. All in the machine's byte order.

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "Vbfp_dot.h"

template <typename Port>
static bool read_port(Port& port) {
    uint32_t words[(sizeof(Port) + 3) / 4];
    if (std::fread(words, sizeof(words), 1, stdin) != 1) return false;
    std::memcpy(&port, words, sizeof(Port));
    return true;
}

static bool read_exponent(CData& port) {
    uint32_t word;
    if (std::fread(&word, sizeof(word), 1, stdin) != 1) return false;
    port = static_cast<CData>(word);
    return true;
}

int main() {
    Vbfp_dot unit;
    while (read_exponent(unit.a_exponent) && read_exponent(unit.w_exponent) && read_port(unit.a) && read_port(unit.w)) {
        for (int level : {0, 1}) {
            unit.clk = level;
            unit.eval();
        }
        const uint32_t answer[2] = {static_cast<uint32_t>(unit.sum), static_cast<uint32_t>(unit.exponent)};
        std::fwrite(answer, sizeof(answer), 1, stdout);
    }
    return 0;
}
