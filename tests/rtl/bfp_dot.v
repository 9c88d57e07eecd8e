// The dot product of two blocks in block floating point: whole mantissas multiplied and added, exponents added.
//
//   value = sum * 2**(exponent - 2*bias - 2*(MANTISSA - 1))        rule 9 of docs/fpga_numerics.md
//
// A mantissa is a sign and MANTISSA bits of magnitude; lane 0 lies in the lowest bits of a and w. Exponents are biased.
// Nothing is rounded: sum has a bit for every carry. One cycle from the inputs to the registered outputs.
// Plain Verilog with flat ports, so that yosys reads it too.

module bfp_dot #(
    parameter LANES = 16,
    parameter MANTISSA = 3,
    parameter EXPONENT = 8,
    parameter SUM = 2 * MANTISSA + $clog2(LANES) + 1
) (
    input wire clk,
    input wire [EXPONENT-1:0] a_exponent,
    input wire [EXPONENT-1:0] w_exponent,
    input wire [LANES*(MANTISSA+1)-1:0] a,
    input wire [LANES*(MANTISSA+1)-1:0] w,
    output reg [EXPONENT:0] exponent,
    output reg signed [SUM-1:0] sum
);

    wire [LANES*2*MANTISSA-1:0] products;
    wire [LANES-1:0] negative;

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : lanes
            wire [MANTISSA-1:0] a_magnitude = a[lane*(MANTISSA+1) +: MANTISSA];
            wire [MANTISSA-1:0] w_magnitude = w[lane*(MANTISSA+1) +: MANTISSA];
            assign products[lane*2*MANTISSA +: 2*MANTISSA] = a_magnitude * w_magnitude;
            assign negative[lane] = a[lane*(MANTISSA+1)+MANTISSA] ^ w[lane*(MANTISSA+1)+MANTISSA];
        end
    endgenerate

    reg [SUM-1:0] total;
    reg [SUM-1:0] term;
    integer i;
    always @* begin
        total = {SUM{1'b0}};
        for (i = 0; i < LANES; i = i + 1) begin
            term = {{(SUM-2*MANTISSA){1'b0}}, products[i*2*MANTISSA +: 2*MANTISSA]};
            total = negative[i] ? total - term : total + term;
        end
    end

    always @(posedge clk) begin
        sum <= total;
        exponent <= {1'b0, a_exponent} + {1'b0, w_exponent};
    end

endmodule
