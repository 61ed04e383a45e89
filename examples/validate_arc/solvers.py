"""Programs that each solve a task of ARC, in the form in which searches write them."""

from shapes import *


def solve_00d62c1b(I):
    O = enclosed(I, 4)
    return O


def solve_0520fde7(I):
    x1 = left(I)
    x2 = right(I)
    O = both(x1, x2, 2)
    return O


def solve_0c9aba6e(I):
    x1 = top(I)
    x2 = bottom(I)
    O = neither(x1, x2, 8)
    return O


def solve_195ba7dc(I):
    x1 = left(I)
    x2 = right(I)
    x3 = over(x1, x2)
    O = painted(x3, 1)
    return O


def solve_1b2d62fb(I):
    x1 = left(I)
    x2 = right(I)
    O = neither(x1, x2, 8)
    return O


def solve_1cf80156(I):
    O = cropped(I)
    return O


def solve_1e0a9b12(I):
    O = fallen(I)
    return O


def solve_2013d3e2(I):
    x1 = cropped(I)
    x2 = top(x1)
    O = left(x2)
    return O


def solve_28bf18c6(I):
    x1 = cropped(I)
    x2 = cropped(I)
    O = beside(x1, x2)
    return O


def solve_31d5ba1a(I):
    x1 = top(I)
    x2 = bottom(I)
    O = one_of(x1, x2, 6)
    return O


def solve_3428a4f5(I):
    x1 = top(I)
    x2 = bottom(I)
    O = one_of(x1, x2, 3)
    return O


def solve_34b99a2b(I):
    x1 = left(I)
    x2 = right(I)
    O = one_of(x1, x2, 2)
    return O


def solve_3af2c5a8(I):
    x1 = flip(I)
    x2 = beside(I, x1)
    x3 = flop(I)
    x4 = half_turn(I)
    x5 = beside(x3, x4)
    O = above(x2, x5)
    return O


def solve_3c9b0459(I):
    O = half_turn(I)
    return O


def solve_46442a0e(I):
    x1 = turn(I)
    x2 = beside(I, x1)
    x3 = back_turn(I)
    x4 = half_turn(I)
    x5 = beside(x3, x4)
    O = above(x2, x5)
    return O


def solve_4c4377d9(I):
    x1 = flop(I)
    O = above(x1, I)
    return O


def solve_506d28a5(I):
    x1 = top(I)
    x2 = bottom(I)
    x3 = over(x1, x2)
    O = painted(x3, 3)
    return O


def solve_5582e5ca(I):
    x1 = commonest(I)
    O = filled(I, x1)
    return O


def solve_5614dbcf(I):
    x1 = recoloured(I, 5, 0)
    O = smaller(x1, 3)
    return O


def solve_59341089(I):
    x1 = flip(I)
    x2 = beside(x1, I)
    x3 = flip(I)
    x4 = beside(x3, I)
    O = beside(x2, x4)
    return O


def solve_5d2a5c43(I):
    x1 = left(I)
    x2 = right(I)
    x3 = over(x1, x2)
    O = painted(x3, 8)
    return O


def solve_60c09cac(I):
    O = larger(I, 2)
    return O


def solve_6150a2bd(I):
    O = half_turn(I)
    return O


def solve_62c24649(I):
    x1 = flip(I)
    x2 = beside(I, x1)
    x3 = flop(I)
    x4 = half_turn(I)
    x5 = beside(x3, x4)
    O = above(x2, x5)
    return O


def solve_67a3c6ac(I):
    O = flip(I)
    return O


def solve_67e8384a(I):
    x1 = flip(I)
    x2 = beside(I, x1)
    x3 = flop(I)
    x4 = half_turn(I)
    x5 = beside(x3, x4)
    O = above(x2, x5)
    return O


def solve_68b16354(I):
    O = flop(I)
    return O


def solve_68b67ca3(I):
    O = smaller(I, 2)
    return O


def solve_6d0aefbc(I):
    x1 = flip(I)
    O = beside(I, x1)
    return O


def solve_6fa7a44f(I):
    x1 = flop(I)
    O = above(I, x1)
    return O


def solve_7468f01a(I):
    x1 = cropped(I)
    O = flip(x1)
    return O


def solve_746b3537(I):
    O = distinct(I)
    return O


def solve_74dd1130(I):
    O = transpose(I)
    return O


def solve_7953d61e(I):
    x1 = back_turn(I)
    x2 = beside(I, x1)
    x3 = half_turn(I)
    x4 = turn(I)
    x5 = beside(x3, x4)
    O = above(x2, x5)
    return O


def solve_7fe24cdd(I):
    x1 = turn(I)
    x2 = beside(I, x1)
    x3 = back_turn(I)
    x4 = half_turn(I)
    x5 = beside(x3, x4)
    O = above(x2, x5)
    return O


def solve_8be77c9e(I):
    x1 = flop(I)
    O = above(I, x1)
    return O


def solve_9172f3a0(I):
    O = larger(I, 3)
    return O


def solve_94f9d214(I):
    x1 = top(I)
    x2 = bottom(I)
    O = neither(x1, x2, 2)
    return O


def solve_99b1bc43(I):
    x1 = top(I)
    x2 = bottom(I)
    O = one_of(x1, x2, 3)
    return O


def solve_9dfd6313(I):
    O = transpose(I)
    return O


def solve_a416b8f3(I):
    O = beside(I, I)
    return O


def solve_a5313dff(I):
    O = enclosed(I, 1)
    return O


def solve_b1948b0a(I):
    O = recoloured(I, 6, 2)
    return O


def solve_be94b721(I):
    x1 = things(I)
    O = heaviest(x1)
    return O


def solve_c59eb873(I):
    O = larger(I, 2)
    return O


def solve_c8f0f002(I):
    O = recoloured(I, 7, 5)
    return O


def solve_c9e6f938(I):
    x1 = flip(I)
    O = beside(I, x1)
    return O


def solve_ce4f8723(I):
    x1 = top(I)
    x2 = bottom(I)
    x3 = over(x1, x2)
    O = painted(x3, 3)
    return O


def solve_d19f7514(I):
    x1 = top(I)
    x2 = bottom(I)
    x3 = over(x1, x2)
    O = painted(x3, 4)
    return O


def solve_d511f180(I):
    O = swapped(I, 5, 8)
    return O


def solve_dae9d2b5(I):
    x1 = left(I)
    x2 = right(I)
    x3 = over(x1, x2)
    O = painted(x3, 6)
    return O


def solve_e133d23d(I):
    x1 = left(I)
    x2 = right(I)
    x3 = over(x1, x2)
    O = painted(x3, 2)
    return O


def solve_e345f17b(I):
    x1 = left(I)
    x2 = right(I)
    O = neither(x1, x2, 4)
    return O


def solve_e98196ab(I):
    x1 = top(I)
    x2 = bottom(I)
    O = over(x1, x2)
    return O


def solve_ed36ccf7(I):
    O = back_turn(I)
    return O


def solve_f25ffba3(I):
    x1 = flop(I)
    O = over(I, x1)
    return O


def solve_f2829549(I):
    x1 = left(I)
    x2 = right(I)
    O = neither(x1, x2, 3)
    return O


def solve_fafffa47(I):
    x1 = top(I)
    x2 = bottom(I)
    O = neither(x1, x2, 2)
    return O
