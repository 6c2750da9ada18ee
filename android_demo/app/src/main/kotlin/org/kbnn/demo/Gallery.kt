package org.kbnn.demo

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.media.ExifInterface
import android.net.Uri
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import kotlin.math.min

/** Upright pictures from the gallery. */
class Gallery(private val resolver: ContentResolver) {
    /** @throws IOException when the picture is gone, may not be read, or is none. */
    fun load(uri: Uri): Picture {
        val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
        decode(uri, bounds)
        val bitmap = decode(uri, BitmapFactory.Options().apply { inSampleSize = sampleSize(bounds) })
            ?: throw IOException("not a picture that this device can read")
        return bitmap.toPicture().rotated(rotation(uri))
    }

    /** Large photographs need not fit into memory whole; the resize to the network's input does the rest. */
    private fun sampleSize(bounds: BitmapFactory.Options): Int {
        var size = 1
        while (min(bounds.outWidth, bounds.outHeight) / (2 * size) >= ENOUGH_PIXELS) size *= 2
        return size
    }

    private fun decode(uri: Uri, options: BitmapFactory.Options): Bitmap? =
        opened(uri) { BitmapFactory.decodeStream(it, null, options) }

    private fun rotation(uri: Uri): Int {
        val orientation = opened(uri) {
            ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
        }
        return when (orientation) {
            ExifInterface.ORIENTATION_ROTATE_90 -> 90
            ExifInterface.ORIENTATION_ROTATE_180 -> 180
            ExifInterface.ORIENTATION_ROTATE_270 -> 270
            else -> 0
        }
    }

    private fun <T> opened(uri: Uri, read: (InputStream) -> T): T = try {
        (resolver.openInputStream(uri) ?: throw FileNotFoundException("$uri")).use(read)
    } catch (error: SecurityException) {
        throw IOException("the picture may not be read any more, choose it again", error)
    }

    private companion object {
        const val ENOUGH_PIXELS = 512
    }
}

/** The bitmap's pixels. */
fun Bitmap.toPicture(): Picture {
    val pixels = IntArray(width * height)
    getPixels(pixels, 0, width, 0, 0, width, height)
    return Picture(width, height, pixels)
}

/** The picture for an image view. */
fun Picture.toBitmap(): Bitmap = Bitmap.createBitmap(pixels, width, height, Bitmap.Config.ARGB_8888)
