package org.kbnn.demo

import java.nio.ByteBuffer
import java.nio.ByteOrder
import javax.imageio.ImageIO
import kotlin.math.abs
import org.json.JSONObject
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.ValueSource

/** The same pictures through Python (`make_vectors.py`) and through the app: pixels in, tensor out. */
class PreprocessingTest {
    @ParameterizedTest
    @ValueSource(strings = ["digit0", "digit1", "digit2", "same_size"])
    fun `pictures of the network's size become the training pipeline's tensor to the bit`(name: String) {
        assertArrayEquals(expected(name), Preprocessing(spec(name)).tensor(picture(name)), 0f)
    }

    @ParameterizedTest
    @ValueSource(strings = ["landscape_shrunk", "portrait_shrunk_and_cut", "squeezed", "grown", "colour_as_luma"])
    fun `other pictures differ by no more than rounding`(name: String) {
        val spec = spec(name)
        val expected = expected(name)
        val actual = Preprocessing(spec).tensor(picture(name))
        assertEquals(expected.size, actual.size)
        // A thousandth of a grey level.
        val most = expected.indices.maxOf { abs(expected[it] - actual[it]) * spec.std[it % spec.channels] }
        assertTrue(most < 1e-3f) { "grey levels differ by $most" }
        assertTrue(expected.toSet().size > 10) { "the picture is flat: it shows nothing" }
    }

    @Test
    fun `a picture of one colour keeps that colour at any size`() {
        val spec = InputSpec(32, 32, 3, 32, listOf(0f, 0f, 0f), listOf(1f, 1f, 1f))
        for ((width, height) in listOf(640 to 480, 33 to 32, 3 to 5, 1 to 1)) {
            val tensor = Preprocessing(spec).tensor(Picture(width, height, IntArray(width * height) { 0x204060 }))
            for (k in tensor.indices) assertEquals(floatArrayOf(32f, 64f, 96f)[k % 3], tensor[k], 1e-4f)
        }
    }

    @Test
    fun `thin panoramas need memory for what is cut out and no more`() {
        val spec = InputSpec(224, 224, 3, 224, listOf(0f, 0f, 0f), listOf(1f, 1f, 1f))
        // Resized whole, the first would be 22,400,000 x 224.
        for ((width, height) in listOf(200_000 to 2, 2 to 200_000, 100_000 to 1)) {
            val tensor = Preprocessing(spec).tensor(Picture(width, height, IntArray(width * height) { 0x204060 }))
            for (k in tensor.indices) assertEquals(floatArrayOf(32f, 64f, 96f)[k % 3], tensor[k], 1e-4f)
        }
    }

    @Test
    fun `pictures are reduced by their area while they are decoded`() {
        assertEquals(1, sampleSize(640, 480))
        assertEquals(4, sampleSize(4000, 3000))
        // 100 million pixels in 500 rows: the shorter side alone would keep them all.
        assertEquals(8, sampleSize(200_000, 500))
        for ((width, height) in listOf(200_000 to 500, 500 to 200_000, 60_000 to 60_000, 1_000_000 to 20)) {
            val size = sampleSize(width, height)
            assertTrue((width / size).toLong() * (height / size) <= 2_000_000) { "$width x $height by $size" }
        }
    }

    @Test
    fun `a camera that fails at once is not opened without end`() {
        val attempts = Attempts(2)
        assertEquals(listOf(true, true, false), List(3) { attempts.mayTry() })
        attempts.reset()
        assertTrue(attempts.mayTry())
    }

    private fun spec(name: String): InputSpec = JSONObject(String(bytes("$name.json"))).run {
        InputSpec(
            getInt("height"),
            getInt("width"),
            getInt("channels"),
            getInt("shorter_side"),
            floats("mean"),
            floats("std"),
            getBoolean("square"),
        )
    }

    private fun JSONObject.floats(name: String): List<Float> =
        getJSONArray(name).let { values -> List(values.length()) { values.getDouble(it).toFloat() } }

    private fun expected(name: String): FloatArray {
        val floats = ByteBuffer.wrap(bytes("$name.bin")).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return FloatArray(floats.remaining()).also { floats.get(it) }
    }

    private fun picture(name: String): Picture {
        val image = ImageIO.read(bytes("$name.png").inputStream())
        return Picture(image.width, image.height, image.getRGB(0, 0, image.width, image.height, null, 0, image.width))
    }

    private fun bytes(file: String): ByteArray = javaClass.getResourceAsStream("/vectors/$file")!!.use { it.readBytes() }
}
