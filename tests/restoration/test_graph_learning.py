"""The graph problem (25) against closed forms, a convex solver and its own invariances."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from cmgl_cli.errors import InputError
from cmgl_cli.restoration import learn_graph
from cmgl_cli.restoration.graph_learning import DenseSupport, degree_root, graph_objective, pdhg_step


def random_kernel(n, seed=0, samples=None):
    generator = torch.Generator().manual_seed(seed)
    shape = (n, n + 3) if samples is None else (samples, n, n + 3)
    factor = torch.randn(shape, generator=generator, dtype=torch.float64)
    kernel = factor @ factor.mT
    return kernel / kernel.diagonal(dim1=-2, dim2=-1).mean()


def convex_solution(kernel, theta1, theta2, theta3):
    n = len(kernel)
    weights = cp.Variable((n, n), symmetric=True)
    degree = cp.sum(weights, axis=1)
    fit = degree @ np.diag(kernel) - cp.sum(cp.multiply(weights, kernel))
    size = cp.sum_squares(degree) + cp.sum_squares(weights)
    problem = cp.Problem(
        cp.Minimize(theta1 * fit + theta2 * size - theta3 * cp.sum(cp.log(degree))),
        [weights >= 0, cp.diag(weights) == 0],
    )
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return weights.value, problem.value


@pytest.mark.parametrize("thetas", [(1.0, 0.5, 1.0), (0.5, 1.0, 0.5), (0.3, 1.0, 2.0)])
def test_agrees_with_a_convex_solver(thetas):
    kernel = random_kernel(8)
    graph = learn_graph(kernel, *thetas, tol=1e-9)
    expected, value = convex_solution(kernel.numpy(), *thetas)
    assert graph.converged
    np.testing.assert_allclose(graph.weights.numpy(), expected, atol=1e-6)
    assert float(graph_objective(graph.weights, kernel, *thetas)) == pytest.approx(value, abs=1e-8)


def test_two_nodes_have_a_closed_form():
    kernel = torch.tensor([[1.0, -0.4], [-0.4, 2.0]], dtype=torch.float64)
    theta1, theta2, theta3 = 0.7, 0.3, 0.9
    # W has one number w: theta1 w (K11 + K22 - 2 K12) + 4 theta2 w^2 - 2 theta3 log w
    slope = theta1 * (3.0 + 0.8)
    expected = (-slope + np.sqrt(slope**2 + 4 * 8 * theta2 * 2 * theta3)) / (16 * theta2)
    graph = learn_graph(kernel, theta1, theta2, theta3, tol=1e-11)
    assert float(graph.weights[0, 1]) == pytest.approx(expected, abs=1e-10)


def test_constant_kernel_gives_the_uniform_graph():
    n, theta2, theta3 = 6, 0.4, 1.3
    graph = learn_graph(torch.ones(n, n, dtype=torch.float64), 1.0, theta2, theta3, tol=1e-11)
    expected = np.sqrt(theta3 / (2 * theta2 * (1 + 1 / (n - 1)))) / (n - 1)
    off = graph.weights[~torch.eye(n, dtype=torch.bool)]
    np.testing.assert_allclose(off.numpy(), expected, atol=1e-9)


def test_degree_root_keeps_its_digits():
    linear = torch.tensor([-1e9, -1.0, 0.0, 1e9], dtype=torch.float64)
    root = degree_root(linear, 2.0, 3.0)
    exact = torch.tensor([3e-9, 1.0, np.sqrt(1.5), 5e8], dtype=torch.float64)
    torch.testing.assert_close(root, exact, rtol=1e-12, atol=0)


def test_scaling_law_of_the_problem():
    kernel = random_kernel(7)
    graph = learn_graph(kernel, 1.0, 0.5, 1.0, tol=1e-10)
    scaled = learn_graph(kernel, 3.0, 1.5, 3.0, tol=1e-10)
    torch.testing.assert_close(graph.weights, scaled.weights, rtol=0, atol=1e-7)
    longer = learn_graph(kernel, 1.0 / 2, 0.5 / 4, 1.0, tol=1e-10)
    torch.testing.assert_close(2 * graph.weights, longer.weights, rtol=0, atol=1e-7)


def test_permutation_equivariance():
    kernel = random_kernel(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    graph = learn_graph(kernel, 1.0, 0.5, 1.0, tol=1e-10)
    permuted = learn_graph(kernel[order][:, order], 1.0, 0.5, 1.0, tol=1e-10)
    torch.testing.assert_close(permuted.weights, graph.weights[order][:, order], rtol=0, atol=1e-8)


def test_batch_equals_loop_and_inputs_stay():
    kernels = random_kernel(6, samples=3)
    before = kernels.clone()
    batch = learn_graph(kernels, 1.0, 0.5, 1.0, tol=1e-10)
    for kernel, weights in zip(kernels, batch.weights, strict=True):
        alone = learn_graph(kernel, 1.0, 0.5, 1.0, tol=1e-10)
        torch.testing.assert_close(alone.weights, weights, rtol=0, atol=1e-8)
    assert torch.equal(kernels, before)


def test_full_edge_support_equals_dense():
    kernel = random_kernel(8)
    edges = torch.triu_indices(8, 8, offset=1)
    dense = learn_graph(kernel, 1.0, 0.5, 1.0, tol=1e-10)
    listed = learn_graph(kernel, 1.0, 0.5, 1.0, edges=edges, tol=1e-10)
    pair = learn_graph((kernel.diagonal(), kernel[edges[0], edges[1]]), 1.0, 0.5, 1.0, edges=edges, tol=1e-10)
    torch.testing.assert_close(listed.laplacian.to_dense(), dense.laplacian, rtol=0, atol=1e-8)
    torch.testing.assert_close(pair.weights, listed.weights, rtol=0, atol=1e-12)


def test_edge_support_solves_the_restricted_problem():
    kernel = random_kernel(7)
    edges = torch.tensor([[0, 0, 1, 2, 3, 4, 5], [1, 6, 2, 3, 4, 5, 6]])
    graph = learn_graph(kernel, 1.0, 0.5, 1.0, edges=edges, tol=1e-11)
    weights = graph.weights.clone().requires_grad_()
    dense = torch.zeros(7, 7, dtype=torch.float64).index_put((edges[0], edges[1]), weights)
    graph_objective(dense + dense.mT, kernel, 1.0, 0.5, 1.0).backward()
    active = graph.weights > 1e-8
    assert weights.grad[active].abs().max() < 1e-6
    assert (weights.grad[~active] > -1e-6).all()


def test_float32_is_kept():
    graph = learn_graph(random_kernel(6).float(), 1.0, 0.5, 1.0, tol=1e-5)
    assert graph.weights.dtype == torch.float32 and graph.converged


def test_step_gradients_match_finite_differences():
    kernel = random_kernel(5)
    support = DenseSupport(5, kernel)

    def run(theta1, theta2, theta3, tau, sigma):
        weights, dual = support.off_diagonal / 4, kernel.new_zeros(5)
        for _ in range(3):
            weights, dual = pdhg_step(
                weights, dual, kernel.diagonal(), kernel, (theta1, theta2, theta3), (tau, sigma), support
            )
        return weights, dual

    numbers = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.6, 0.7, 1.1, 0.2, 0.4)]
    assert torch.autograd.gradcheck(run, numbers)


@pytest.mark.parametrize(
    "kernel, thetas",
    [
        (torch.ones(3, 4), (1, 1, 1)),
        (torch.full((3, 3), float("nan")), (1, 1, 1)),
        (torch.ones(3, 3), (1, 0, 1)),
        (torch.ones(1, 1), (1, 1, 1)),
    ],
)
def test_bad_input_is_refused(kernel, thetas):
    with pytest.raises(InputError):
        learn_graph(kernel, *thetas)


def test_node_without_candidate_edge_is_named():
    with pytest.raises(InputError, match="node 2"):
        learn_graph(torch.eye(3), 1, 1, 1, edges=torch.tensor([[0], [1]]))
