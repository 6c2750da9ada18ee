package org.kbnn.demo

import java.nio.ByteBuffer
import kotlin.math.abs
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.CsvSource

class PictureTest {
    // 1 2 3
    // 4 5 6
    private val picture = Picture(3, 2, intArrayOf(1, 2, 3, 4, 5, 6))

    @Test
    fun `rotations by hand`() {
        assertArrayEquals(intArrayOf(4, 1, 5, 2, 6, 3), picture.rotated(90).pixels)
        assertArrayEquals(intArrayOf(6, 5, 4, 3, 2, 1), picture.rotated(180).pixels)
        assertArrayEquals(intArrayOf(3, 6, 2, 5, 1, 4), picture.rotated(270).pixels)
        assertEquals(2 to 3, picture.rotated(90).run { width to height })
        assertThrows(IllegalArgumentException::class.java) { picture.rotated(45) }
    }

    @Test
    fun `a picture needs all its pixels`() {
        assertThrows(IllegalArgumentException::class.java) { Picture(2, 2, IntArray(3)) }
    }

    @ParameterizedTest
    @CsvSource(
        "76,85,255, 0xFF0000", "150,44,21, 0x00FF00", "29,255,107, 0x0000FF",
        "0,128,128, 0x000000", "255,128,128, 0xFFFFFF", "128,128,128, 0x808080",
    )
    fun `camera colours of JFIF`(y: Int, u: Int, v: Int, rgb: String) {
        val pixel = Picture.fromYuv(2, 2, plane(4, 2, y), plane(1, 1, u), plane(1, 1, v)).pixels[3]
        for (shift in listOf(16, 8, 0)) {
            assertEquals((Integer.decode(rgb) shr shift) and 0xFF, (pixel shr shift) and 0xFF, 1)
        }
    }

    @Test
    fun `strides of rows and of interleaved chroma are followed`() {
        // 4 x 2 luma in rows of 6; one buffer holds v, u, v, u: pixel stride 2.
        val luma = ByteBuffer.wrap(byteArrayOf(10, 20, 30, 40, 99, 99, 50, 60, 70, 80, 99, 99))
        val chroma = byteArrayOf(128.toByte(), 128.toByte(), 128.toByte(), 128.toByte())
        val v = Picture.Plane(ByteBuffer.wrap(chroma), 4, 2)
        val u = Picture.Plane(ByteBuffer.wrap(chroma, 1, 3).slice(), 4, 2)
        val grey = Picture.fromYuv(4, 2, Picture.Plane(luma, 6, 1), u, v).pixels.map { it and 0xFF }
        assertEquals(listOf(10, 20, 30, 40, 50, 60, 70, 80), grey)
    }

    @ParameterizedTest
    @CsvSource("90,0,false,90", "90,90,false,0", "90,270,false,180", "270,0,true,270", "270,90,true,0", "90,180,false,270")
    fun `sensor pictures are turned upright`(sensor: Int, display: Int, front: Boolean, degrees: Int) {
        assertEquals(degrees, uprightRotation(sensor, display, front))
    }

    private fun plane(count: Int, stride: Int, value: Int) =
        Picture.Plane(ByteBuffer.wrap(ByteArray(count) { value.toByte() }), stride, 1)

    private fun assertEquals(expected: Int, actual: Int, tolerance: Int) =
        assertTrue(abs(expected - actual) <= tolerance) { "$actual is not $expected" }
}
