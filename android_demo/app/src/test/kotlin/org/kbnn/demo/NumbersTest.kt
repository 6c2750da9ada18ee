package org.kbnn.demo

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class NumbersTest {
    @Test
    fun `softmax by hand`() {
        // exp(0), exp(ln 2), exp(ln 5): 1, 2, 5 of 8.
        val logits = floatArrayOf(0f, 0.6931472f, 1.6094379f)
        assertArrayEquals(floatArrayOf(0.125f, 0.25f, 0.625f), softmax(logits), 1e-6f)
    }

    @Test
    fun `softmax does not overflow`() {
        assertArrayEquals(floatArrayOf(1f, 0f), softmax(floatArrayOf(3e38f, -3e38f)), 0f)
        assertArrayEquals(floatArrayOf(0.5f, 0.5f), softmax(floatArrayOf(1e30f, 1e30f)), 0f)
    }

    @Test
    fun `the likeliest labels come first and equally likely ones keep their order`() {
        val guesses = top(floatArrayOf(1f, 3f, 2f, 3f), false, listOf("a", "b", "c", "d"), 3)
        assertEquals(listOf("b", "d", "c"), guesses.map { it.label })
        assertTrue(guesses[0].confidence == guesses[1].confidence && guesses[1].confidence > guesses[2].confidence)
    }

    @Test
    fun `probabilities stay as they are and logits pass softmax`() {
        val shares = floatArrayOf(0.125f, 0.25f, 0.625f)
        val labels = listOf("a", "b", "c")
        assertEquals(listOf(Guess("c", 0.625f), Guess("b", 0.25f)), top(shares, true, labels, 2))
        // exp(0.625) / (exp(0.125) + exp(0.25) + exp(0.625)) = 1.8682 / 4.2854.
        assertEquals(0.43595f, top(shares, false, labels, 1).single().confidence, 1e-4f)
    }

    @Test
    fun `a network with fewer labels than asked for gives all of them`() {
        assertEquals(2, top(floatArrayOf(1f, 2f), false, listOf("a", "b"), 3).size)
    }

    @Test
    fun `outputs without labels are refused`() {
        assertThrows(IllegalArgumentException::class.java) { top(floatArrayOf(1f, 2f), false, listOf("a"), 1) }
    }

    @Test
    fun `int8 values by hand`() {
        val quantization = Quantization(0.5f, -10)
        assertEquals(listOf(-10, -8, 127, -128), listOf(0f, 1f, 1e9f, -1e9f).map { quantization.quantize(it).toInt() })
        assertEquals(1f, quantization.real(-8))
        assertEquals(68.5f, quantization.real(127))
    }

    @Test
    fun `median and p95 equal NumPy's`() {
        val window = LatencyWindow()
        assertTrue(window.median.isNaN() && window.p95.isNaN())
        // numpy.percentile([1, 2, 3, 4], [50, 95]) = 2.5, 3.85
        listOf(4.0, 1.0, 3.0, 2.0).forEach(window::add)
        assertEquals(2.5, window.median, 1e-12)
        assertEquals(3.85, window.p95, 1e-12)
    }

    @Test
    fun `only the last hundred latencies count`() {
        val window = LatencyWindow()
        repeat(50) { window.add(1000.0) }
        repeat(100) { window.add(it.toDouble()) }
        assertEquals(100, window.count)
        assertEquals(49.5, window.median, 1e-12)
        window.clear()
        assertEquals(0, window.count)
    }
}
